"""Published figures, as their papers print them: on their own data, so that none is a baseline of a run's.

Sources: Wang et al., EMNLP 2022 (MedCLIP), tables 1, 2 and 4, which also measure CLIP, ConVIRT and GLoRIA;
Zhang et al., MLHC 2022 (ConVIRT), linear classification and retrieval.
"""

from medclip_keras.evaluation.sections import Table

ZERO_SHOT = (
    Table(
        "MedCLIP, table 1: accuracy with one prompt a class, in parentheses with the ensemble.",
        ("", "CheXpert-5x200", "MIMIC-5x200", "COVID", "RSNA"),
        (
            ("CLIP", ".202 (.204)", ".192 (.225)", ".507 (.509)", ".499 (.506)"),
            ("ConVIRT", ".419 (.422)", ".402 (.401)", ".518 (.665)", ".473 (.465)"),
            ("GLoRIA", ".433 (.421)", ".331 (.338)", ".709 (.570)", ".581 (.475)"),
            ("MedCLIP-ResNet", ".548 (.571)", ".502 (.543)", ".847 (.837)", ".742 (.758)"),
            ("MedCLIP-ViT", ".594 (.594)", ".501 (.502)", ".801 (.794)", ".745 (.768)"),
        ),
    ),
)
PROBE = (
    Table(
        "MedCLIP, table 2 (there called fine-tuning): accuracy of a linear classifier on frozen features.",
        ("", "CheXpert-5x200", "MIMIC-5x200", "COVID", "RSNA"),
        (
            ("random start", ".250", ".222", ".506", ".642"),
            ("ImageNet", ".320", ".283", ".602", ".756"),
            ("CLIP", ".302", ".278", ".587", ".730"),
            ("ConVIRT", ".477", ".404", ".698", ".785"),
            ("GLoRIA", ".537", ".359", ".762", ".798"),
            ("MedCLIP", ".596", ".565", ".789", ".808"),
        ),
    ),
    Table(
        "ConVIRT, linear classification: AUROC with 1 % and 10 % of the labels, mean of five runs.",
        ("", "RSNA", "CheXpert", "MURA"),
        (("1 % of labels", ".907", ".859", ".812"), ("10 % of labels", ".917", ".868", ".851")),
    ),
)
RETRIEVAL = (
    Table(
        "MedCLIP, table 4: Precision@K of sentences for an image, CheXpert-5x200.",
        ("", "@1", "@2", "@5", "@10"),
        (
            ("CLIP", ".21", ".20", ".20", ".19"),
            ("ConVIRT", ".20", ".20", ".20", ".21"),
            ("GLoRIA", ".47", ".47", ".46", ".46"),
            ("MedCLIP", ".45", ".49", ".48", ".50"),
        ),
    ),
    Table(
        "ConVIRT, CheXpert-8x200.",
        ("", "precision"),
        (("image to image, @10", ".429"), ("text to image, @5", ".600")),
    ),
)
