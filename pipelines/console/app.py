"""What Streamlit compiles and runs at every click: as little as can be."""

from pipelines.console.pages import main

main()
