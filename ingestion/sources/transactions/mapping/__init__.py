"""From the columns of any file to the fields of the contract, as a mapping says."""
