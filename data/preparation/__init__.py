"""Prepared logs: from files of any size to partitions of users, with bounded memory."""
