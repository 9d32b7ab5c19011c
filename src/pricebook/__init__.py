"""Pricebook: one price list that every shop, till, ERP and partner reads."""
