"""Pictures that exist already: files that are checked before anything is measured, and whose pictures they are."""
