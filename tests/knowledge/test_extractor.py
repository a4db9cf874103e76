import json
import pathlib
import pickle

import pytest

from medclip_keras.knowledge.aliases import words_of
from medclip_keras.knowledge.concepts import Concept, ConceptTable
from medclip_keras.knowledge.extractor import Extractor

SIGNS = {"positive": "+", "negative": "-", "uncertain": "?", "historical": "<"}


def said(extractor, text):
    """Findings with their assertions: + there, - denied, ? open, < past or resolved."""
    found = {}
    for mention in extractor.mentions(text, "findings"):
        found.setdefault(mention.name, set()).add(SIGNS[mention.assertion])
    return {name: "".join(sorted(signs)) for name, signs in found.items()}


SENTENCES = [
    ("There is no pleural effusion.", "Pleural Effusion: -"),
    (
        "No effusion, pneumothorax, or consolidation.",
        "Pleural Effusion: -, Pneumothorax: -, Consolidation: -",
    ),
    ("No pneumothorax or pleural effusion is seen.", "Pleural Effusion: -, Pneumothorax: -"),
    ("Neither pneumothorax nor effusion is present.", "Pleural Effusion: -, Pneumothorax: -"),
    ("Pleural effusion is not seen.", "Pleural Effusion: -"),
    ("Effusion and pneumothorax are not identified.", "Pleural Effusion: -, Pneumothorax: -"),
    ("Small left effusion is present, pneumothorax is not seen.", "Pleural Effusion: +, Pneumothorax: -"),
    ("No pneumothorax, small left pleural effusion.", "Pneumothorax: -, Pleural Effusion: +"),
    ("No pneumothorax but there is a moderate right effusion.", "Pneumothorax: -, Pleural Effusion: +"),
    ("The heart is enlarged without evidence of pulmonary edema.", "Cardiomegaly: +, Edema: -"),
    ("The cardiac silhouette is markedly enlarged.", "Cardiomegaly: +"),
    ("Heart is not enlarged.", "Cardiomegaly: -"),
    ("The heart is normal in size.", "Cardiomegaly: -"),
    ("Heart size is within normal limits.", "Cardiomegaly: -"),
    ("Enlargement of the cardiac silhouette is again seen.", "Cardiomegaly: +"),
    ("There is moderate enlargement of the heart.", "Cardiomegaly: +"),
    ("The heart size is increased.", "Cardiomegaly: +"),
    ("The cardiothoracic ratio is increased.", "Cardiomegaly: +"),
    ("Globular enlarged cardiac contour.", "Cardiomegaly: +"),
    ("The heart appears mildly prominent.", "Cardiomegaly: +"),
    ("Possible small left pleural effusion.", "Pleural Effusion: ?"),
    ("A small effusion cannot be excluded.", "Pleural Effusion: ?"),
    ("Cannot exclude early pneumonia.", "Pneumonia: ?"),
    ("Opacity may represent atelectasis or pneumonia.", "Lung Opacity: +, Atelectasis: ?, Pneumonia: ?"),
    ("Findings suspicious for consolidation.", "Consolidation: ?"),
    ("Questionable nodule in the right upper lobe.", "Nodule: ?"),
    ("A nodule is suspected in the left upper lobe.", "Nodule: ?"),
    ("Left basilar atelectasis versus infiltrate.", "Atelectasis: ?, Infiltration: ?"),
    ("Equivocal right apical pneumothorax.", "Pneumothorax: ?"),
    ("There may be a tiny pneumothorax.", "Pneumothorax: ?"),
    ("Pneumothorax is possible on the left.", "Pneumothorax: ?"),
    ("Pneumonia is unlikely.", "Pneumonia: -"),
    ("History of pneumothorax.", "Pneumothorax: <"),
    ("Previous effusion has resolved.", "Pleural Effusion: <"),
    ("The previously seen right effusion is no longer visible.", "Pleural Effusion: <"),
    ("Interval resolution of the left pneumothorax.", "Pneumothorax: <"),
    ("The chest tube has been removed.", "Support Devices: <"),
    ("Previously noted effusion is unchanged.", "Pleural Effusion: +"),
    ("No change in the left pleural effusion.", "Pleural Effusion: +"),
    ("No significant interval change in bibasilar atelectasis.", "Atelectasis: +"),
    ("Pulmonary edema has not significantly changed.", "Edema: +"),
    ("No new consolidation.", "Consolidation: -"),
    ("Right-sided hydropneumothorax.", "Pleural Effusion: +, Pneumothorax: +"),
    ("Air in the left pleural space.", "Pneumothorax: +"),
    ("Fluid in the pleural space on the right.", "Pleural Effusion: +"),
    ("Right pleural fluid collection.", "Pleural Effusion: +"),
    ("Layering fluid is seen in the right hemithorax.", "Pleural Effusion: +"),
    ("Collapse of the right middle lobe.", "Atelectasis: +"),
    ("The left lower lobe is collapsed.", "Atelectasis: +"),
    ("Discoid atelectasis at the left base.", "Atelectasis: +"),
    ("Atelectatic changes in both bases.", "Atelectasis: +"),
    ("Acute fracture of the left sixth rib.", "Fracture: +"),
    ("Left rib fractures.", "Fracture: +"),
    ("The left fifth rib is fractured.", "Fracture: +"),
    ("No displaced rib fracture.", "Fracture: -"),
    ("Old healed right clavicle fracture.", "Fracture: +"),
    ("There is a break in the seventh rib.", "Fracture: +"),
    ("Endotracheal tube terminates 4.5 cm above the carina.", "Support Devices: +"),
    ("Right PICC line in place.", "Support Devices: +"),
    ("Dual-lead pacemaker overlies the left chest.", "Support Devices: +"),
    ("A nasogastric tube courses below the diaphragm.", "Support Devices: +"),
    ("Left subclavian central venous catheter tip is in the SVC.", "Support Devices: +"),
    ("Emphysematous changes are seen in the upper lobes.", "Emphysema: +"),
    ("Subcutaneous emphysema is present.", ""),
    ("Large hiatal hernia.", "Hernia: +"),
    ("Hiatus hernia with air-fluid level behind the heart.", "Hernia: +"),
    ("Part of the stomach has herniated into the chest.", "Hernia: +"),
    ("A 2 cm spiculated mass in the right lung.", "Mass: +"),
    ("Solitary pulmonary nodule in the left upper lobe.", "Nodule: +"),
    ("Small nodular opacity projects over the right lung.", "Nodule: ?, Lung Opacity: +"),
    ("Rounded lesion in the left lung.", "Lung Lesion: +"),
    ("Mass effect on the trachea.", ""),
    ("Interstitial oedema.", "Edema: +"),
    ("Alveolar pulmonary edema, bilateral.", "Edema: +"),
    ("Kerley B lines are present.", "Edema: +"),
    ("Soft tissue edema of the chest wall.", ""),
    ("Pericardial effusion.", ""),
    ("Airspace opacification in the right lower lobe.", "Lung Opacity: +"),
    ("Air-space disease in the left base.", "Lung Opacity: +"),
    ("Air bronchograms within the right lower lobe.", "Consolidation: +"),
    ("Consolidated right upper lobe.", "Consolidation: +"),
    ("Bibasilar infiltrates.", "Infiltration: +"),
    ("Chronic interstitial fibrosis.", "Fibrosis: +"),
    ("Widened mediastinum.", "Enlarged Cardiomediastinum: +"),
    ("The mediastinum is not widened.", "Enlarged Cardiomediastinum: -"),
    ("The lungs are free of consolidation or edema.", "Consolidation: -, Edema: -"),
    ("Negative for pneumothorax.", "Pneumothorax: -"),
    ("Absence of pleural effusion.", "Pleural Effusion: -"),
    ("Pleural effusion: none.", "Pleural Effusion: -"),
    ("Pneumothorax: absent.", "Pneumothorax: -"),
    ("Pleural effusions are absent.", "Pleural Effusion: -"),
    ("There is no evidence of acute fracture, dislocation, or pneumothorax.", "Fracture: -, Pneumothorax: -"),
    ("Lungs show no sign of consolidation, and the heart is enlarged.", "Consolidation: -, Cardiomegaly: +"),
    ("No focal consolidation and the cardiac silhouette is enlarged.", "Consolidation: -, Cardiomegaly: +"),
    (
        "The lungs are without consolidation; a small effusion is seen.",
        "Consolidation: -, Pleural Effusion: +",
    ),
    ("Cardiomegaly with no effusion.", "Cardiomegaly: +, Pleural Effusion: -"),
    ("Cardiomegaly is present; no edema.", "Cardiomegaly: +, Edema: -"),
    ("Apart from mild cardiomegaly, no abnormality.", "Cardiomegaly: +, No Finding: +"),
    ("Except for a small effusion the chest is normal.", "Pleural Effusion: +, No Finding: +"),
    ("No acute cardiopulmonary abnormality.", "No Finding: +"),
    ("No acute cardiopulmonary process.", "No Finding: +"),
    ("No acute disease.", "No Finding: +"),
    ("Normal chest radiograph.", "No Finding: +"),
    ("Normal examination of the chest.", "No Finding: +"),
    ("Unremarkable study.", "No Finding: +"),
    ("The chest is normal.", "No Finding: +"),
    ("No abnormal findings.", "No Finding: +"),
    ("No radiographic abnormality is identified.", "No Finding: +"),
    ("Chest x-ray within normal limits.", "No Finding: +"),
    ("No active cardiopulmonary disease.", "No Finding: +"),
    ("No evidence of acute cardiopulmonary disease.", "No Finding: +"),
    ("No acute osseous abnormality.", ""),
    ("No acute bony abnormality.", ""),
    ("It is not possible to exclude a small pneumothorax.", "Pneumothorax: ?"),
    ("A right pneumothorax is difficult to exclude.", "Pneumothorax: ?"),
    ("The possibility of a left lower lobe pneumonia is raised.", "Pneumonia: ?"),
    ("Appearances raise the possibility of early pulmonary edema.", "Edema: ?"),
    ("Findings could reflect mild edema.", "Edema: ?"),
    ("Consolidation is questioned at the left base.", "Consolidation: ?"),
    ("? right basal consolidation.", "Consolidation: ?"),
    ("Mild edema is likely present.", "Edema: +"),
    ("Probable small left effusion.", "Pleural Effusion: +"),
    ("Effusions are seen bilaterally.", "Pleural Effusion: +"),
    ("HEART IS ENLARGED. ", "Cardiomegaly: +"),
    ("No lung nodule or mass.", "Nodule: -, Mass: -"),
    ("No pneumothorax after removal of the chest tube.", "Pneumothorax: -, Support Devices: <"),
    ("Status post median sternotomy with intact wires.", ""),
    ("Compared to the prior study, the effusion has increased.", "Pleural Effusion: +"),
    ("Compared with the previous radiograph, the pneumothorax has resolved.", "Pneumothorax: <"),
    ("The effusion has nearly resolved.", "Pleural Effusion: +"),
    ("Resolving right lower lobe consolidation.", "Consolidation: +"),
    ("Pneumothorax has been excluded.", "Pneumothorax: -"),
    ("Pneumothorax is not excluded.", "Pneumothorax: ?"),
    ("The pleural spaces are clear.", "Pleural Effusion: -"),
    ("Costophrenic angles are sharp.", "Pleural Effusion: -"),
    ("No acute fracture.", "Fracture: -"),
    ("The patient has a history of emphysema.", "Emphysema: <"),
    ("Known emphysema.", "Emphysema: +"),
    ("Left lung base atelectasis, no pneumothorax.", "Atelectasis: +, Pneumothorax: -"),
    (
        "There is atelectasis at the left base, but no effusion or pneumothorax.",
        "Atelectasis: +, Pleural Effusion: -, Pneumothorax: -",
    ),
    ("I see no effusion.", "Pleural Effusion: -"),
    ("Effusion has cleared.", "Pleural Effusion: <"),
    ("The lungs demonstrate neither consolidation nor edema.", "Consolidation: -, Edema: -"),
    ("Pneumonia cannot be ruled out.", "Pneumonia: ?"),
    ("Heart size cannot be assessed.", ""),
    ("Cardiac enlargement is not demonstrated.", "Cardiomegaly: -"),
    ("The heart does not appear enlarged.", "Cardiomegaly: -"),
    ("Mild-to-moderate cardiomegaly.", "Cardiomegaly: +"),
    ("No hernia.", "Hernia: -"),
    ("Lucent upper lobes in keeping with emphysema.", "Emphysema: +"),
    ("Opacity suggestive of consolidation.", "Lung Opacity: +, Consolidation: ?"),
    ("Findings consistent with pulmonary edema.", "Edema: +"),
    ("Findings are compatible with consolidation.", "Consolidation: +"),
    ("No support devices.", "Support Devices: -"),
    ("No lines or tubes are seen.", "Support Devices: -"),
    ("There has been interval development of a right effusion.", "Pleural Effusion: +"),
    ("No interval development of effusion.", "Pleural Effusion: -"),
    ("Prior effusion, now gone.", "Pleural Effusion: <"),
    ("The previously described nodule is not seen today.", "Nodule: -"),
    ("Remote history of rib fractures.", "Fracture: <"),
    ("Doubtful small nodule.", "Nodule: ?"),
    ("Indeterminate nodule in the left lung.", "Nodule: +"),
    ("Nodule, indeterminate.", "Nodule: +"),
    ("Left pleural effusion and right pneumothorax are possible.", "Pleural Effusion: ?, Pneumothorax: ?"),
    ("Possible left effusion or atelectasis.", "Pleural Effusion: ?, Atelectasis: ?"),
    ("Cardiomegaly and pulmonary edema are both present.", "Cardiomegaly: +, Edema: +"),
    ("Bilateral effusions, right greater than left.", "Pleural Effusion: +"),
    ("Effusions have enlarged.", "Pleural Effusion: +"),
    ("The cardiac silhouette is not enlarged and there is no pulmonary edema.", "Cardiomegaly: -, Edema: -"),
    ("No rib is broken.", "Fracture: -"),
    ("The ribs are intact without fracture.", "Fracture: -"),
    ("A fracture line crosses the left eighth rib.", "Fracture: +"),
    ("The lungs are hyperlucent with emphysema.", "Emphysema: +"),
    ("Emphysema is not evident.", "Emphysema: -"),
    ("No evidence for emphysema.", "Emphysema: -"),
    ("No convincing evidence of pneumothorax.", "Pneumothorax: -"),
    ("There is no sign of a hiatal hernia.", "Hernia: -"),
    ("A hiatal hernia is suspected.", "Hernia: ?"),
    ("Effusion is absent on both sides.", "Pleural Effusion: -"),
    ("Consolidation is excluded.", "Consolidation: -"),
    ("Without pleural effusion.", "Pleural Effusion: -"),
    ("The left lung is free from consolidation.", "Consolidation: -"),
    ("The right lung shows consolidation.", "Consolidation: +"),
    ("Dense consolidation occupies the right lower lobe.", "Consolidation: +"),
    ("There is patchy consolidation, worse on the left.", "Consolidation: +"),
    ("Consolidation is seen, not effusion.", "Consolidation: +, Pleural Effusion: -"),
    ("This is atelectasis rather than consolidation.", "Atelectasis: +, Consolidation: -"),
    ("The nodule measures 1.5 cm and is new since the prior study.", "Nodule: +"),
    ("No suspicious nodules or masses.", "Nodule: -, Mass: -"),
    ("There is a question of a left apical pneumothorax.", "Pneumothorax: ?"),
    ("One cannot entirely exclude a trace effusion.", "Pleural Effusion: ?"),
    ("A trace effusion would be difficult to exclude.", "Pleural Effusion: ?"),
    ("Perhaps a small amount of pleural fluid on the right.", "Pleural Effusion: ?"),
    ("It is uncertain whether a small pneumothorax is present.", "Pneumothorax: ?"),
    ("This might represent a nodule.", "Nodule: ?"),
    ("Consider early consolidation.", "Consolidation: ?"),
    ("Suspected cardiomegaly.", "Cardiomegaly: ?"),
    ("The heart may be enlarged.", "Cardiomegaly: ?"),
    ("The heart is possibly enlarged.", "Cardiomegaly: ?"),
    ("The heart is questionably enlarged.", "Cardiomegaly: ?"),
    ("Cardiac enlargement cannot be excluded.", "Cardiomegaly: ?"),
    ("No definite pneumothorax.", "Pneumothorax: -"),
    ("No obvious fracture.", "Fracture: -"),
    ("No fracture is apparent.", "Fracture: -"),
    ("Fracture not visualized.", "Fracture: -"),
    ("Edema has resolved in the interval.", "Edema: <"),
    ("Interval clearing of the pulmonary edema.", "Edema: <"),
    ("Previously present left effusion is now gone.", "Pleural Effusion: <"),
    ("The earlier consolidation has completely cleared.", "Consolidation: <"),
    ("Prior left pneumothorax.", "Pneumothorax: <"),
    ("Patient with known history of cardiomegaly.", "Cardiomegaly: <"),
    ("Persistent cardiomegaly.", "Cardiomegaly: +"),
    ("Stable small right effusion.", "Pleural Effusion: +"),
    ("Unchanged cardiomegaly, no edema.", "Cardiomegaly: +, Edema: -"),
    ("The endotracheal tube has been removed; a feeding tube remains.", "Support Devices: +<"),
    ("Central line removed.", "Support Devices: <"),
    ("Left chest wall port with tip at the cavoatrial junction.", "Support Devices: +"),
    ("Tracheostomy in situ.", "Support Devices: +"),
    ("Median sternotomy wires are intact.", "Support Devices: +"),
    ("No tube or catheter is seen.", "Support Devices: -"),
    ("Lines and tubes: none.", "Support Devices: -"),
    ("Cardiac size is at the upper limit of normal.", "Cardiomegaly: -"),
    ("The heart is top normal in size.", "Cardiomegaly: -"),
    ("Heart size and mediastinal contours are normal.", "Cardiomegaly: -, Enlarged Cardiomediastinum: -"),
    ("Mildly enlarged cardiac silhouette, increased compared to prior.", "Cardiomegaly: +"),
    ("There is no cardiomegaly, effusion or edema.", "Cardiomegaly: -, Pleural Effusion: -, Edema: -"),
    (
        "No evidence of pneumothorax, pleural effusion, focal consolidation, or pulmonary edema.",
        "Pneumothorax: -, Pleural Effusion: -, Consolidation: -, Edema: -",
    ),
    ("There is no pneumothorax. There is a left effusion.", "Pneumothorax: -, Pleural Effusion: +"),
    ("No pneumothorax; left effusion.", "Pneumothorax: -, Pleural Effusion: +"),
    ("Although no pneumothorax is seen, there is a left effusion.", "Pneumothorax: -, Pleural Effusion: +"),
    ("While there is no effusion, the heart is enlarged.", "Pleural Effusion: -, Cardiomegaly: +"),
    ("Other than cardiomegaly, no acute abnormality.", "Cardiomegaly: +, No Finding: +"),
    ("No abnormality apart from a calcified nodule.", "Nodule: +, No Finding: +"),
    ("Nothing to suggest pneumonia.", "Pneumonia: -"),
    ("No findings to suggest consolidation or edema.", "Consolidation: -, Edema: -"),
    ("Findings do not suggest pneumonia.", "Pneumonia: -"),
    ("Pleural effusion has developed on the left.", "Pleural Effusion: +"),
    ("Left effusion not significantly changed.", "Pleural Effusion: +"),
    ("There is no appreciable change in cardiomegaly.", "Cardiomegaly: +"),
    ("Not only is there effusion, the heart is enlarged too.", "Pleural Effusion: +, Cardiomegaly: +"),
    ("No longer any pneumothorax.", "Pneumothorax: <"),
    ("Pneumothorax: No.", "Pneumothorax: -"),
    ("Effusion - none.", "Pleural Effusion: -"),
    ("Rt pleural effusion noted.", "Pleural Effusion: +"),
    ("Lt. lower lobe collapse.", "Atelectasis: +"),
    ("Band-like atelectasis, left base.", "Atelectasis: +"),
    ("The pneumothorax previously seen on the left is smaller.", "Pneumothorax: +"),
    ("The pneumothorax seen on the prior film has resolved.", "Pneumothorax: <"),
    ("Widening of the superior mediastinum.", "Enlarged Cardiomediastinum: +"),
    ("Right hilar mass with postobstructive pneumonia.", "Mass: +, Pneumonia: +"),
    ("Multiple pulmonary nodules consistent with metastases.", "Nodule: +"),
    ("Lung cancer is suspected.", "Lung Lesion: ?"),
    (
        "The lungs are clear. No pleural effusion or pneumothorax. The heart is normal.",
        "Lung Opacity: -, Pleural Effusion: -, Pneumothorax: -, Cardiomegaly: -",
    ),
    ("Pleural effusion on the right is seen; on the left no effusion.", "Pleural Effusion: +-"),
    ("No right pleural effusion, though a left one is present.", "Pleural Effusion: -"),
    ("Lungs clear.", "Lung Opacity: -"),
    ("There are no rib fractures, and no pneumothorax.", "Fracture: -, Pneumothorax: -"),
    ("Edema and/or infection.", "Edema: +"),
    ("No free air, pneumothorax.", "Pneumothorax: -"),
    ("Recommend CT to exclude a nodule.", "Nodule: ?"),
    ("Evaluate for pneumothorax.", "Pneumothorax: ?"),
    ("A subtle left effusion is thought to be present.", "Pleural Effusion: +"),
    (
        "Cardiomegaly, with pulmonary edema and bilateral effusions, is noted.",
        "Cardiomegaly: +, Edema: +, Pleural Effusion: +",
    ),
    ("Cardiomegaly without edema, with small effusions.", "Cardiomegaly: +, Edema: -, Pleural Effusion: +"),
    ("There is no pneumothorax and small effusions persist.", "Pneumothorax: -, Pleural Effusion: +"),
    ("No pneumothorax. Lungs: consolidation at the left base.", "Pneumothorax: -, Consolidation: +"),
    (
        "Lungs: No consolidation. Pleura: No effusion. Heart: Enlarged.",
        "Consolidation: -, Pleural Effusion: -, Cardiomegaly: +",
    ),
    ("Heart: mildly enlarged.", "Cardiomegaly: +"),
    ("Bones: no fracture.", "Fracture: -"),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_sentence_says(extractor, text, expected):
    pairs = (pair.split(": ") for pair in expected.split(", ") if pair)
    assert said(extractor, text) == {name: "".join(sorted(signs)) for name, signs in pairs}


def test_mentions_carry_offsets_cue_and_concept(extractor):
    text = "1. The heart is large.\n2. There is no left pleural effusion or pneumothorax."
    mentions = extractor.mentions(text, "impression")
    assert [(m.name, text[m.start : m.end], m.assertion, m.cue) for m in mentions] == [
        ("Cardiomegaly", "heart is large", "positive", ""),
        ("Pleural Effusion", "pleural effusion", "negative", "no"),
        ("Pneumothorax", "pneumothorax", "negative", "no"),
    ]
    assert {m.section for m in mentions} == {"impression"}
    assert [m.cui for m in mentions] == ["C0018800", "C0032227", "C0032326"]


def test_repeated_sentences_keep_their_own_offsets(extractor):
    text = "No effusion. Heart large. No effusion."
    spans = [(m.start, m.end) for m in extractor.mentions(text, "body") if m.name == "Pleural Effusion"]
    assert spans == [(3, 11), (29, 37)]
    assert [text[start:end] for start, end in spans] == ["effusion", "effusion"]


def test_negation_ends_with_its_sentence_and_clause(extractor):
    assert said(extractor, "No effusion. Pneumothorax.") == {"Pleural Effusion": "-", "Pneumothorax": "+"}
    assert said(extractor, "No effusion but pneumothorax.") == {"Pleural Effusion": "-", "Pneumothorax": "+"}
    assert said(extractor, "No effusion or pneumothorax.") == {"Pleural Effusion": "-", "Pneumothorax": "-"}


def test_upper_case_british_and_hyphenated_words_are_the_same_words(extractor):
    for text in ("INTERSTITIAL EDEMA", "Interstitial oedema", "interstitial-edema", "interstitial\nedema"):
        assert said(extractor, text) == {"Edema": "+"}


def test_longest_phrase_wins(extractor):
    assert said(extractor, "Nodular density.") == {"Nodule": "+"}
    assert said(extractor, "Opacity and a nodule.") == {"Lung Opacity": "+", "Nodule": "+"}


def test_a_phrase_that_leaves_its_concept_open_hides_no_other(extractor):
    assert said(extractor, "Nodular opacity.") == {"Nodule": "?", "Lung Opacity": "+"}
    assert said(extractor, "No nodular opacity.") == {"Nodule": "-", "Lung Opacity": "-"}


def test_one_reading_a_concept_where_aliases_overlap(extractor):
    mentions = extractor.mentions("The heart shows cardiac enlargement.", "findings")
    assert [m.name for m in mentions] == ["Cardiomegaly"]


def test_normality_is_not_denied_by_another_negation(extractor):
    assert said(extractor, "No effusion and no acute disease.") == {
        "Pleural Effusion": "-",
        "No Finding": "+",
    }


def test_a_users_table_needs_only_a_row_a_concept():
    table = ConceptTable(
        "bones",
        (
            Concept(
                "C0000001", "Scoliosis", ("(curved|crooked) spine", "spine + curvature", "!no curvature")
            ),
            Concept("C0000002", "Osteopenia", ("~normal bone density",)),
        ),
    )
    extractor = Extractor(table)
    assert said(extractor, "Scoliosis.") == {"Scoliosis": "+"}  # the name itself is an alias
    assert said(extractor, "A crooked spine.") == {"Scoliosis": "+"}
    assert said(extractor, "Curvature of the spine, no osteopenia.") == {"Scoliosis": "+", "Osteopenia": "-"}
    assert said(extractor, "Curvature is seen, the spine is not.") == {}  # a comma apart
    assert said(extractor, "Normal bone density.") == {"Osteopenia": "-"}
    assert said(extractor, "Not a normal bone density.") == {}


def test_an_alias_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match=r"Received: '\(left effusion'"):
        Extractor(ConceptTable("bad", (Concept("C0000001", "A", ("(left effusion",)),)))


def test_extractor_travels_to_a_worker(extractor):
    copy = pickle.loads(pickle.dumps(extractor))
    assert said(copy, "No effusion.") == {"Pleural Effusion": "-"}
    assert copy.table == extractor.table


def test_an_extractor_of_a_texts_words_reads_it_alike(extractor):
    # All phenomena in a few texts, so that many phrases are left out and many are not.
    lines = (pathlib.Path(__file__).parent / "challenge.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    for part in range(0, len(texts), 20):
        text = "\n\n".join(texts[part : part + 20])
        words = frozenset(words_of(text)[0])
        quick = Extractor(extractor.table, words=words)
        assert quick.mentions(text, "findings") == extractor.mentions(text, "findings")
        assert len(quick._uses) < len(extractor._uses) / 10  # that is what makes it quick
