from divlens.cli import main

main()
