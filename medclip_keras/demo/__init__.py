"""A page to try a model on this machine; see `medclip_keras.demo.app`."""
