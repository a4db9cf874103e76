"""The towers of the runs that need no GPU and start from random weights."""

from medclip_keras.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig

SMALL_TEXT = TextEncoderConfig(
    num_layers=1, num_heads=4, hidden_dim=128, intermediate_dim=256, vocabulary_size=2000
)
SMALL_MODEL = ModelConfig(
    image=ImageEncoderConfig(backbone="small_resnet", image_size=64, width=16), text=SMALL_TEXT
)
