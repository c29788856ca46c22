"""What is measured: pairs, their measures with intervals over people, the verdict."""
