"""What layers remember between steps: specs, pools, the planner and the prefix index."""
