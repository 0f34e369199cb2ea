"""What `vdsm generate` draws: clips of the user, pictures and animations."""
