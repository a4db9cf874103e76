"""The grammar's words: what radiologists write of each finding, and the frames they write it in.

A noun is `singular|plural`; one without a plural is a mass noun and takes no article. In frames, `{noun}`
is a noun alone, `{phrase}` one with severity, side and place, `{a_phrase}` the same with its article, `{is}`
the verb that agrees, `{also}` and `{third}` further findings.
"""

from typing import NamedTuple


class Entries(NamedTuple):
    """Ways to say one thing. `late` ones were written after the extractor that reads them was frozen."""

    early: tuple[str, ...]
    late: tuple[str, ...] = ()


NOUNS = {
    "Atelectasis": Entries(
        (
            "atelectasis",
            "subsegmental atelectasis",
            "linear atelectasis",
            "atelectatic change|atelectatic changes",
        )
    ),
    "Cardiomegaly": Entries(("cardiomegaly", "cardiac enlargement", "enlargement of the heart")),
    "Consolidation": Entries(
        (
            "consolidation",
            "airspace consolidation",
            "focal consolidation",
            "consolidative opacity|consolidative opacities",
        )
    ),
    "Edema": Entries(("pulmonary edema", "interstitial edema", "alveolar edema")),
    "Pleural Effusion": Entries(
        ("pleural effusion|pleural effusions", "effusion|effusions", "pleural fluid")
    ),
    "Pneumothorax": Entries(("pneumothorax|pneumothoraces", "apical pneumothorax|apical pneumothoraces")),
    "Nodule": Entries(("pulmonary nodule|pulmonary nodules", "lung nodule|lung nodules", "nodule|nodules")),
    "Fracture": Entries(("rib fracture|rib fractures", "displaced rib fracture|displaced rib fractures")),
    "Emphysema": Entries(("emphysema", "emphysematous change|emphysematous changes", "bullous emphysema")),
}

# Nouns that fit a denial ("no focal consolidation") where the nouns above would sound odd or say less.
DENIED = {
    "Atelectasis": Entries(("atelectasis", "subsegmental atelectasis")),
    "Cardiomegaly": Entries(("cardiomegaly", "cardiac enlargement")),
    "Consolidation": Entries(("focal consolidation", "consolidation", "airspace consolidation")),
    "Edema": Entries(("pulmonary edema", "interstitial edema", "edema")),
    "Pleural Effusion": Entries(("pleural effusion", "effusion", "pleural fluid")),
    "Pneumothorax": Entries(("pneumothorax",)),
    "Nodule": Entries(("pulmonary nodule", "suspicious nodule", "lung nodule")),
    "Fracture": Entries(("rib fracture", "displaced fracture", "acute fracture")),
    "Emphysema": Entries(("emphysema", "emphysematous change")),
}

# Sentences that assert one finding without a noun of it.
STATEMENTS = {
    "Cardiomegaly": Entries(
        (
            "The heart is {degree} enlarged.",
            "The cardiac silhouette is {degree} enlarged.",
            "Heart size is {degree} enlarged.",
        )
    ),
}

# Sentences that deny one finding by stating the normal.
NORMAL_STATEMENTS = {
    "Cardiomegaly": Entries(
        (
            "The heart is normal in size.",
            "Heart size is within normal limits.",
            "The cardiac silhouette is normal in size.",
            "The heart is not enlarged.",
        )
    ),
}

DEVICES = {
    "endotracheal tube": Entries(
        (
            "Endotracheal tube tip projects {n} cm above the carina.",
            "The endotracheal tube is in good position.",
        )
    ),
    "venous line": Entries(
        (
            "A central venous catheter terminates in the superior vena cava.",
            "The central venous catheter tip overlies the cavoatrial junction.",
            "PICC line ends in the upper superior vena cava.",
        )
    ),
    "pacemaker": Entries(
        (
            "A dual lead pacemaker is in place.",
            "Pacemaker leads are in the expected positions.",
        )
    ),
    "stomach tube": Entries(
        (
            "A nasogastric tube courses below the diaphragm.",
            "The nasogastric tube ends in the stomach.",
        )
    ),
}

REMOVED_DEVICES = Entries(
    (
        "The endotracheal tube has been removed.",
        "Interval removal of the nasogastric tube.",
    )
)

POSITIVE = Entries(
    (
        "There {is} {a_phrase}.",
        "{phrase} {is} present.",
        "{phrase} {is} seen.",
        "{phrase} {is} again noted.",
        "Findings are consistent with {phrase}.",
        "Interval development of {phrase}.",
        "Stable {phrase}.",
        "{phrase}, unchanged from the prior study.",
        "Persistent {phrase} without significant change.",
        "The study shows {phrase}.",
        "{phrase} {is} not significantly changed.",
        "There has been interval increase in {phrase}.",
    )
)

NEGATIVE = Entries(
    (
        "There is no {noun}.",
        "No {noun} is seen.",
        "No evidence of {noun}.",
        "There is no evidence of {noun}.",
        "No {noun} is identified.",
        "{noun} is not seen.",
        "The study is negative for {noun}.",
        "The chest is without {noun}.",
        "No radiographic evidence of {noun}.",
        "No new {noun}.",
    )
)

NEGATIVE_SEVERAL = Entries(
    (
        "No {noun} or {also}.",
        "There is no {noun} or {also}.",
        "There is no evidence of {noun}, {also}, or {third}.",
        "No {noun}, {also}, or {third} is seen.",
        "Neither {noun} nor {also} is identified.",
        "The chest is free of {noun} and {also}.",
    )
)

UNCERTAIN = Entries(
    (
        "Possible {phrase}.",
        "There is possible {phrase}.",
        "{phrase} cannot be excluded.",
        "Findings may represent {phrase}.",
        "Questionable {phrase}.",
        "Appearance is suspicious for {phrase}.",
        "Increased density could represent {phrase}.",
        "Probable {phrase}.",
    )
)

HISTORICAL = Entries(
    (
        "The previously seen {noun} has resolved.",
        "Interval resolution of {noun}.",
        "The prior {noun} is no longer seen.",
        "Previously noted {noun} has cleared.",
    )
)

POSITIVE_BOTH = Entries(
    (  # two findings that are there
        "There {is} {a_phrase} and {also}.",
        "{phrase} with {also}.",
        "{phrase} {is} seen along with {also}.",
    )
)

POSITIVE_THEN_NEGATIVE = Entries(
    (  # the first is there, the second is not
        "{phrase} without {also}.",
        "There {is} {a_phrase} but no {also}.",
        "{phrase} {is} seen, with no evidence of {also}.",
    )
)

OTHER_SIDE = Entries(
    (  # the finding is there, but not on this side
        "No {side} {noun} is seen.",
        "There is no {side} {noun}.",
    )
)

NORMAL = Entries(
    (
        "No acute cardiopulmonary abnormality.",
        "Normal chest radiograph.",
        "No acute cardiopulmonary disease.",
        "No acute cardiopulmonary process.",
        "Unremarkable chest radiograph.",
        "Normal chest.",
    )
)

NOT_ACUTE = Entries(("No acute cardiopulmonary abnormality.", "No acute cardiopulmonary process."))

FILLERS = Entries(
    (
        "The mediastinal contours are normal.",
        "The trachea is midline.",
        "Degenerative changes are seen in the thoracic spine.",
        "The aorta is tortuous.",
        "The hilar contours are unremarkable.",
        "Pulmonary vascularity is within normal limits.",
        "The upper abdomen is unremarkable.",
        "Atherosclerotic calcification of the aortic arch is present.",
    )
)

EXAMS = ("Chest, two views.", "Portable AP chest radiograph.", "PA and lateral views of the chest.")

INDICATIONS = Entries(
    (
        "Shortness of breath.",
        "Cough and fever, evaluate for pneumonia.",
        "Chest pain, rule out pneumothorax.",
        "History of {noun}, follow up.",
        "Evaluate for {noun}.",
        "Fall, question {noun}.",
        "Dyspnea in a patient with known {noun}.",
        "Preoperative evaluation.",
    )
)

COMPARISONS = ("None.", "None available.", "Chest radiograph of the previous day.", "Prior chest radiograph.")

# Severity in three steps.
SIZES = (Entries(("small", "tiny")), Entries(("moderate",)), Entries(("large",)))
DEGREES = (Entries(("mild", "minimal")), Entries(("moderate",)), Entries(("severe", "marked")))
ADVERBS = (Entries(("mildly",)), Entries(("moderately",)), Entries(("severely", "markedly")))
ZONES = {
    "upper": Entries(("upper lobe", "upper lung")),
    "mid": Entries(("mid lung", "mid zone")),
    "lower": Entries(("lower lobe", "lung base")),
}
HEADINGS = {
    "exam": Entries(("EXAM", "EXAMINATION")),
    "indication": Entries(("INDICATION", "HISTORY")),
    "comparison": Entries(("COMPARISON",)),
    "findings": Entries(("FINDINGS",)),
    "impression": Entries(("IMPRESSION",)),
}
