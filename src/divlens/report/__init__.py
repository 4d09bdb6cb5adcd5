"""What a person looks at: tables for the terminal, contact sheets."""
