"""Helpers behind Face_Recognition_Project.ipynb, one module per stage."""
