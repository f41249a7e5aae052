"""Our engine beside others: every engine in a process of its own, all of them given the same work in turns."""
