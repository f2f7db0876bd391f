"""The public face: what `import study` offers to scripts and notebooks, and what the command line is built on."""
