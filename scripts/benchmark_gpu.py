from gcnn.commands.main import main

if __name__ == "__main__":
    main("benchmark-gpu")
