"""What leaves the pages as files: tables for programs and papers, charts for a browser without network."""
