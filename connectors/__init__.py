"""Everything the program reads from and writes to outside itself: files (local and gs://), Pub/Sub, Kafka, vendors,
customer tables. Events travel through a file folder, Pub/Sub or Kafka, named by URI (uri.py) and opened in open.py."""
