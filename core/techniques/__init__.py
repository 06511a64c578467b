"""Every technique is one file in the folder of its family; `catalogue.py` lists them."""
