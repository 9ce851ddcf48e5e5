"""The pages: each module turns facts into what its template shows."""
