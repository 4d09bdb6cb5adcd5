"""What is measured of the features of pictures, beside LPIPS diversity, and by which other networks: functions of
tensors, which know nothing of models or probes. `experiment/families.py` makes measures of them."""
