"""What is valid in the inputs and has no effect: looked for before anything is published."""
