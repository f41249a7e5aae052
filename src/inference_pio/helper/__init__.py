"""A locked child for programs that strangers' files and requests bring along: chat templates, images."""
