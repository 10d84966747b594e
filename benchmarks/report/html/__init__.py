"""leaderboard/index.html: the board as one file for a browser, a pure function of the records and their pictures."""
