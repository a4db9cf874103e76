"""The Apache Beam jobs, each a command: from raw files to records."""

from medclip_keras.command import start_quietly

start_quietly()
