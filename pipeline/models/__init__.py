"""Models for users: found by path, URL or name, exported, described and shared."""
