"""What leaves the warehouse for programs: files for other engines; an API would go here, too."""
