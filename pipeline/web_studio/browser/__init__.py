"""Files of the static edition's page that answer in the browser what the API answers elsewhere."""
