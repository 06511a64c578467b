"""Exports: tables for programs and papers, and charts that work offline."""
