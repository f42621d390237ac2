"""What schedules experiments; talks to the project through DVC's command line only."""
