"""`tf.data` pipelines, one file per source."""
