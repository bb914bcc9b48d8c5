"""The only place with SQL. Every other module speaks to Postgres through the functions in here."""
