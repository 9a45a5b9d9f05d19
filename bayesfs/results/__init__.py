"""A run as an `xarray.DataTree`: assemble, query, keep, convert."""
