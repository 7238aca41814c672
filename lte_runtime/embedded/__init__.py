"""The adapters that ship, `MODEL/adapters/ID` for a model of the catalogue. A model may have none yet."""
