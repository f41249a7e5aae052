"""Plugin packages of others: installed without running anything of them, checked each time they are used."""
