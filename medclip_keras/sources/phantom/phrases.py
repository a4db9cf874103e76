"""The frames of the grammar's sentences, and the words around the findings.

In a frame, `{noun}` is a finding alone, `{phrase}` one with severity, side and place, `{a_phrase}` the same
with its article, `{is}` the verb that agrees, `{also}` and `{third}` further findings.
"""

from medclip_keras.sources.phantom.nouns import Entries

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
    ),
    late=(
        "Redemonstration of {phrase}.",
        "{phrase} {is} visualized.",
        "Note is made of {phrase}.",
        "Worsening {phrase}.",
        "{phrase} without interval improvement.",
        "Again demonstrated {is} {phrase}.",
    ),
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
    ),
    late=(
        "No sign of {noun}.",
        "No appreciable {noun}.",
        "{noun} is absent.",
        "The examination fails to show {noun}.",
        "There is nothing to suggest {noun}.",
    ),
)

NEGATIVE_SEVERAL = Entries(
    (
        "No {noun} or {also}.",
        "There is no {noun} or {also}.",
        "There is no evidence of {noun}, {also}, or {third}.",
        "No {noun}, {also}, or {third} is seen.",
        "Neither {noun} nor {also} is identified.",
        "The chest is free of {noun} and {also}.",
    ),
    late=(
        "{noun} and {also} are absent.",
        "No {noun}, no {also}, and no {third}.",
        "Absence of {noun} or {also}.",
    ),
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
        "Cannot exclude {phrase}.",
    ),
    late=(
        "{phrase} {is} not excluded.",
        "Cannot rule out {phrase}.",
        "{phrase} {is} suspected.",
        "Findings raise concern for {phrase}.",
    ),
)

HISTORICAL = Entries(
    (
        "The previously seen {noun} has resolved.",
        "Interval resolution of {noun}.",
        "The prior {noun} is no longer seen.",
        "Previously noted {noun} has cleared.",
    ),
    late=(
        "The {noun} seen previously has disappeared.",
        "{noun} has completely resolved since the prior examination.",
    ),
)

POSITIVE_BOTH = Entries(
    (
        "There {is} {a_phrase} and {also}.",
        "{phrase} with {also}.",
        "{phrase} {is} seen along with {also}.",
    ),
    late=(
        "{phrase}, accompanied by {also}.",
        "{phrase} as well as {also}.",
    ),
)

POSITIVE_THEN_NEGATIVE = Entries(
    (
        "{phrase} without {also}.",
        "There {is} {a_phrase} but no {also}.",
        "{phrase} {is} seen, with no evidence of {also}.",
    ),
    late=(
        "{phrase}; no {also}.",
        "{phrase} in the absence of {also}.",
    ),
)

OTHER_SIDE = Entries(
    (
        "No {side} {noun} is seen.",
        "There is no {side} {noun}.",
    ),
    late=("The {side} hemithorax shows no {noun}.",),
)

NORMAL = Entries(
    (
        "No acute cardiopulmonary abnormality.",
        "Normal chest radiograph.",
        "No acute cardiopulmonary disease.",
        "No acute cardiopulmonary process.",
        "Unremarkable chest radiograph.",
        "Normal chest.",
    ),
    late=(
        "The chest is normal.",
        "No radiographic evidence of acute cardiopulmonary disease.",
        "Normal examination of the chest.",
    ),
)

NOT_ACUTE = Entries(
    (
        "No acute cardiopulmonary abnormality.",
        "No acute cardiopulmonary process.",
    ),
    late=("No acute intrathoracic process.",),
)

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
    ),
    late=(
        "The thoracic aorta is calcified.",
        "The visualized soft tissues are unremarkable.",
        "Lung volumes are low.",
        "The patient is rotated.",
    ),
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
    ),
    late=(
        "Concern for {noun}.",
        "Status post treatment of {noun}.",
        "Rule out {noun} or pneumonia.",
        "Previous {noun} on an outside film.",
    ),
)

COMPARISONS = ("None.", "None available.", "Chest radiograph of the previous day.", "Prior chest radiograph.")

# Severity in three steps.
SIZES = (
    Entries(
        (
            "small",
            "tiny",
        ),
        late=("trace",),
    ),
    Entries(("moderate",), late=("medium-sized",)),
    Entries(("large",), late=("massive",)),
)
DEGREES = (
    Entries(
        (
            "mild",
            "minimal",
        ),
        late=("slight",),
    ),
    Entries(("moderate",)),
    Entries(
        (
            "severe",
            "marked",
        ),
        late=("pronounced",),
    ),
)
ADVERBS = (
    Entries(("mildly",), late=("slightly",)),
    Entries(("moderately",)),
    Entries(
        (
            "severely",
            "markedly",
        ),
        late=("grossly",),
    ),
)
ZONES = {
    "upper": Entries(
        (
            "upper lobe",
            "upper lung",
        ),
        late=("apex",),
    ),
    "mid": Entries(("mid lung", "mid zone")),
    "lower": Entries(
        (
            "lower lobe",
            "lung base",
        ),
        late=("base",),
    ),
}
HEADINGS = {
    "exam": Entries(
        (
            "EXAM",
            "EXAMINATION",
        ),
        late=("STUDY",),
    ),
    "indication": Entries(
        (
            "INDICATION",
            "HISTORY",
        ),
        late=("REASON FOR EXAM",),
    ),
    "comparison": Entries(("COMPARISON",)),
    "findings": Entries(("FINDINGS",)),
    "impression": Entries(("IMPRESSION",), late=("CONCLUSION",)),
}
