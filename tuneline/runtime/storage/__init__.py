"""Files as a stage finds them and leaves them: content, room on the disk, and what a disk refuses."""
