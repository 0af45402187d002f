from paasd.cli import main

main()
