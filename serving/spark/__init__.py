"""Apache Spark for the target ``spark``: a server on this machine, to try the models on."""
