"""Videos to clips to WebDataset shards with a manifest; owns the dataset format."""
