"""The paper's statements, judged."""
