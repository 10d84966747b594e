"""Other libraries' training loops beside ours: the same networks, data, batch size and number format."""
