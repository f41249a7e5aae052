"""Questions with known answers: what is asked, how an answer is read, and where the questions come from."""
