"""Stands until the page does."""

import streamlit as st

st.title("runs")
