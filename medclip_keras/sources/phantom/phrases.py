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
        ),
        late=(
            "plate-like atelectasis",
            "segmental collapse",
        ),
    ),
    "Cardiomegaly": Entries(
        (
            "cardiomegaly",
            "cardiac enlargement",
            "enlargement of the heart",
        ),
        late=("cardiac silhouette enlargement",),
    ),
    "Consolidation": Entries(
        (
            "consolidation",
            "airspace consolidation",
            "focal consolidation",
            "consolidative opacity|consolidative opacities",
        ),
        late=(
            "lobar consolidation",
            "alveolar consolidation",
        ),
    ),
    "Edema": Entries(
        (
            "pulmonary edema",
            "interstitial edema",
            "alveolar edema",
        ),
        late=("pulmonary oedema",),
    ),
    "Pleural Effusion": Entries(
        (
            "pleural effusion|pleural effusions",
            "effusion|effusions",
            "pleural fluid",
        ),
        late=(
            "pleural fluid collection|pleural fluid collections",
            "hydrothorax|hydrothoraces",
        ),
    ),
    "Pneumothorax": Entries(
        (
            "pneumothorax|pneumothoraces",
            "apical pneumothorax|apical pneumothoraces",
        ),
        late=("basilar pneumothorax|basilar pneumothoraces",),
    ),
    "Nodule": Entries(
        (
            "pulmonary nodule|pulmonary nodules",
            "lung nodule|lung nodules",
            "nodule|nodules",
        ),
        late=(
            "nodular density|nodular densities",
            "parenchymal nodule|parenchymal nodules",
        ),
    ),
    "Fracture": Entries(
        (
            "rib fracture|rib fractures",
            "displaced rib fracture|displaced rib fractures",
        ),
        late=("fractured rib|fractured ribs",),
    ),
    "Emphysema": Entries(
        (
            "emphysema",
            "emphysematous change|emphysematous changes",
            "bullous emphysema",
        ),
        late=("emphysematous lung disease",),
    ),
}

# Nouns that fit a denial ("no focal consolidation") where the nouns above would sound odd or say less.
DENIED = {
    "Atelectasis": Entries(
        (
            "atelectasis",
            "subsegmental atelectasis",
        ),
        late=("lobar collapse",),
    ),
    "Cardiomegaly": Entries(
        (
            "cardiomegaly",
            "cardiac enlargement",
        ),
        late=("enlargement of the cardiac silhouette",),
    ),
    "Consolidation": Entries(
        (
            "focal consolidation",
            "consolidation",
            "airspace consolidation",
        ),
        late=("lobar consolidation",),
    ),
    "Edema": Entries(
        (
            "pulmonary edema",
            "interstitial edema",
            "edema",
        ),
        late=("pulmonary oedema",),
    ),
    "Pleural Effusion": Entries(
        (
            "pleural effusion",
            "effusion",
            "pleural fluid",
        ),
        late=(
            "layering pleural effusion",
            "pleural fluid collection",
        ),
    ),
    "Pneumothorax": Entries(("pneumothorax",), late=("tension pneumothorax",)),
    "Nodule": Entries(
        (
            "pulmonary nodule",
            "suspicious nodule",
            "lung nodule",
        ),
        late=(
            "discrete nodule",
            "nodular density",
        ),
    ),
    "Fracture": Entries(
        (
            "rib fracture",
            "displaced fracture",
            "acute fracture",
        ),
        late=("fractured rib",),
    ),
    "Emphysema": Entries(
        (
            "emphysema",
            "emphysematous change",
        ),
        late=("emphysematous disease",),
    ),
}

# Sentences that assert one finding without a noun of it.
STATEMENTS = {
    "Cardiomegaly": Entries(
        (
            "The heart is {degree} enlarged.",
            "The cardiac silhouette is {degree} enlarged.",
            "Heart size is {degree} enlarged.",
        ),
        late=(
            "The heart appears {degree} enlarged.",
            "The cardiothoracic ratio is {degree} increased.",
        ),
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
        ),
        late=(
            "The heart does not appear enlarged.",
            "The cardiothoracic ratio is normal.",
        ),
    ),
}

DEVICES = {
    "endotracheal tube": Entries(
        (
            "Endotracheal tube tip projects {n} cm above the carina.",
            "The endotracheal tube is in good position.",
        ),
        late=("The ET tube terminates {n} cm above the carina.",),
    ),
    "venous line": Entries(
        (
            "A central venous catheter terminates in the superior vena cava.",
            "The central venous catheter tip overlies the cavoatrial junction.",
            "PICC line ends in the upper superior vena cava.",
        ),
        late=("Right internal jugular catheter tip is in the right atrium.",),
    ),
    "pacemaker": Entries(
        (
            "A dual lead pacemaker is in place.",
            "Pacemaker leads are in the expected positions.",
        ),
        late=("Left-sided AICD with intact leads.",),
    ),
    "stomach tube": Entries(
        (
            "A nasogastric tube courses below the diaphragm.",
            "The nasogastric tube ends in the stomach.",
        ),
        late=("The enteric tube tip lies in the gastric body.",),
    ),
}

REMOVED_DEVICES = Entries(
    (
        "The endotracheal tube has been removed.",
        "Interval removal of the nasogastric tube.",
    ),
    late=("Support lines have been removed since the previous study.",),
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
        "Probable {phrase}.",
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
