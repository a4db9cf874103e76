"""Names of the folders and files of MODELS_DIR and of a version; imports nothing."""

SAVED_MODEL = "saved_model.pb"  # makes a folder a version
TOKENS_ONLY = "tokens_only"  # folder of the versions without text operations; TensorFlow Serving ignores it
ROLLED_BACK = "rolled_back"  # folder of the versions taken out of service; TensorFlow Serving ignores it
EXTRA = "assets.extra"  # folder in a version; TensorFlow Serving reads only the warm-up requests in it
RUN_FILE, CONCEPTS_FILE = "run.json", "concepts.jsonl"  # in EXTRA, as the following
MANIFEST_FILE, MODEL_CARD, WARMUP_FILE = "manifest.json", "MODEL_CARD.md", "tf_serving_warmup_requests"
