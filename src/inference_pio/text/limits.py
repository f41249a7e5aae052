"""Sizes beyond which a tokenizer's files are refused: generous for real ones, small enough to fail at once."""

MAX_TOKEN_BYTES = 64 * 1024
MAX_VOCABULARY = 1 << 22
MAX_FILE_BYTES = 128 << 20
# Characters in one call; beyond about ten million the regular expression engine gives up on runs of spaces.
MAX_TEXT = 8_000_000
