"""`python -m rag_ft.cli`."""

from rag_ft.cli import main

if __name__ == "__main__":
    main()
