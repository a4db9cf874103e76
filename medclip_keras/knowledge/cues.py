"""The words by which a report denies, doubts or dates a finding, by the way their scope runs.

Phrases use the alternatives of `knowledge.aliases`: `(not|never) seen`, an empty alternative is optional.
"Likely" and "probable" are no cues: a radiologist who writes them asserts the finding, and people who code
reports read them so. "May represent", "cannot exclude", "versus" and their kin leave it open.

"Versus" is the borderline: of the findings of our tuning reports that only a "versus" leaves open, people who
coded Open-i kept 25 of 30. It stays a cue of doubt, for that is what it says.
"""

_SEEN = (
    "seen|identified|visualized|present|evident|appreciated|demonstrated|noted|observed|detected|apparent|"
    "found|visible|shown|recognized|discernible|suspected|suggested|depicted|delineated|discerned|indicated|"
    "developed|confirmed|recurred|reaccumulated|proven|substantiated"
)
_ADVERB = (
    "|definitely|clearly|convincingly|currently|now|readily|definitively|obviously|acutely|grossly|really"
)

# Deny what follows them in the clause.
NEGATIVE_BEFORE = (
    "no",
    "not",
    "non",
    "n't",
    "without",
    "w/o",
    "negative for",
    "negative (chest|exam|study) for",
    "(free|clear|devoid|cleared) (of|from)",
    "(absence|lack|exclusion) of",
    "absent",
    "lacks",
    "nor",
    "neither",
    "denies",
    "(this|that|which|study|exam|film|radiograph|view|ct|finding|appearance) (rules out|excludes)",
    "(cannot|can not|could not|can't|do not|did not) (see|identify|detect|find|appreciate|demonstrate)",
    "never",
    "none of",
    "(unlikely|improbable) to (represent|be|reflect)",
    "(argues|arguing) against",
    "rather than",
    "instead of",
    "(fails|failed) to (show|demonstrate|reveal)",
    "nothing to suggest",
)

# Deny what stands before them in the clause.
NEGATIVE_AFTER = (
    f"not ({_ADVERB}) ({_SEEN})",
    f"(can not|cannot|could not) be ({_ADVERB}) ({_SEEN})",
    "not (any|at all)",
    "not (longer|) (in place|there|a feature|features|in evidence)",
    f"never ({_SEEN})",
    f"nowhere (to be|) ({_SEEN})",
    "(is|are|was|were|remain|remains) (absent|negative|excluded|ruled out|lacking|unlikely|"
    "improbable|missing)",
    "(is|are) (very|highly|considered|felt to be|thought) (unlikely|improbable)",
    "(has|have) been (ruled out|excluded)",
    "ruled out",
    "unlikely",
    "absent",
    "(:|-) (none|absent|negative|nil|no .|not seen|not present)",
    "none",
    "(fails|failed) to (appear|show)",
)

# The finding was there and is gone.
RESOLVED_BEFORE = (
    "(resolution|clearing|clearance|disappearance|resorption) of",
    "(resolved|cleared)",
    "no longer (any|a|)",
    "interval (resolution|clearing|removal) of",
    "(removal|withdrawal|extraction|explantation) of",
    "(removed|extubated)",
    "with (complete|interval) (resolution|clearing) of",
)
RESOLVED_AFTER = (
    "(has|have|had|is|are|) (now|since|both|all|completely|entirely|fully|been|subsequently|essentially|"
    "virtually|) (resolved|cleared|disappeared|vanished|gone|removed|drained|evacuated|reabsorbed|resorbed|"
    "cleared up)",
    "(has|have) (both|all|now|since|) been (completely|entirely|since|) (removed|withdrawn|taken out|"
    "discontinued|evacuated)",
    "(has|have) (completely|entirely|now|since) (resolved|cleared|disappeared)",
    "(removed|withdrawn|d/c|d/c'd)",
    f"no longer ({_ADVERB}) ({_SEEN})",
    "no longer",
    "removal",
    "(by|per) history",
    "in the (past|remote past)",
    "(shows|showing|with) (complete|interval) (resolution|clearing)",
)

# Leave open what follows them in the clause.
UNCERTAIN_BEFORE = (
    "(possible|possibly|potential|potentially|questionable|questionably|equivocal|perhaps|maybe|"
    "conceivable|conceivably)",
    "(can not|cannot|could not|can't|couldn't|unable to|difficult to|hard to|not able to|not "
    "possible to|impossible to|no evidence to|inability to|insufficient to) "
    "(entirely|completely|definitively|definitely|fully|reliably|confidently|absolutely|) "
    "(exclude|rule out|be excluded|differentiate|distinguish|discount)",
    "(does|do|did|would) not (entirely|completely|definitively|) (exclude|rule out)",
    "not (excluding|ruling out)",
    "(can not|cannot|could not) (be said|say|be stated|state|be certain|be sure) (that|) (there is|) no",
    "without excluding",
    "(may|might|could|can|would) (also|well|possibly|potentially|simply|just|) "
    "(represent|be|reflect|indicate|relate to|be related to|be due to|be secondary to|suggest|correspond to|"
    "have|be from|signify|mean|include|be caused by|be compatible with|be consistent with|be explained by|"
    "be associated with|be seen with|be seen in|reveal|result from|mask|obscure|mimic)",
    "(may|might|could)",
    "(question|question of|questioned|query|queried|raises the question of|raise the question of)",
    "(raises|raise|raising) (the|) (possibility|concern|suspicion) (of|for|)",
    "(concern|suspicion|suspicious|concerning|worrisome|worry|worrying) (for|of|about)",
    "(suspected|suspect|suspicion)",  # a "suspicious nodule" is there: the adjective is no hedge
    "(suggest|suggests|suggesting|suggested|suggestive|suggestion) (of|that|)",
    "(consider|considered|considering|consideration of|considerations include|to be considered)",
    "(differential|differential diagnosis|differential considerations|differential possibilities) "
    "(include|includes|including|would include|is|of|:|)",
    "(possibility|chance) of",
    "(evaluate|evaluation|assess|assessed|assessment|check|screen) for",
    "(to exclude|to rule out|r/o|rule out|exclude)",
    "if (there is|) (clinical|high clinical|a clinical|) (concern|suspicion|question|evidence|signs|"
    "symptoms) (for|of|)",
    "(clinical|clinically) (correlation|correlate|concern|suspected|suspicion|correlation is "
    "recommended) (for|with|)",
    "(in the appropriate|in the right|in the proper|given the appropriate) clinical (setting|context)",
    "(indeterminate|uncertain|unclear) (for|if|whether)",
    "doubtful",
    "(there|here|this|it|these) (is|are|was|were|remain) (a|an|also|also a|again|still|still a|) "
    "(possible|questionable|questioned|suspected|equivocal|conceivable)",
    "(favored|preferred) over",
    "(more|less) likely than",
    "?",
    "+ /",
    "whether",
    "if",
    "(mimic|mimics|mimicking|simulate|simulates|simulating)",
    "(not certain|not sure|unsure) (if|whether)",
)
UNCERTAIN_AFTER = (
    "but (is|are|) not (entirely|completely|definitively|definitely|fully|) (excluded|ruled out)",
    "but (can not|cannot|could not) be (entirely|completely|definitively|definitely|fully|) "
    "(excluded|ruled out)",
    "(is|are|) (felt|thought|considered|felt to be|thought to be|much|) less likely",
    ", if (any|present|real|there|at all)",
    "(difficult|hard|impossible) to (exclude|rule out|assess|determine)",
    "(can not|cannot|could not|can't|couldn't|may not) be (entirely|completely|definitively|definitely|fully|"
    "reliably|confidently|absolutely|totally|) (excluded|ruled out|discounted|differentiated)",
    "(is|are|would be|remain|) (not|difficult to|hard to|impossible to) (entirely|completely|"
    "definitively|definitely|fully|) "
    "(excluded|exclude|ruled out|rule out)",
    "not (entirely|completely|definitively|definitely|fully|) (excluded|ruled out)",
    "(is|are|remains|remain|also|would be|seems|thought) (a|also|still|) "
    "(possible|questionable|questioned|suspected|equivocal|possibility|consideration|concern|conceivable|"
    "considered|uncertain|suggested|raised|queried|in question)",
    "(should|could|might|may|must|can) (also|) be (considered|present|suspected|questioned|there|"
    "entertained)",
    "(possible|questionable|suspected|questioned|equivocal|conceivable)",
    "?",
    "(may|might|could) (also|all|both|) (exist|coexist|be present|look|appear|produce|explain|account for|"
    "cause|have this appearance)",
)
# Leave open what stands on both sides of them.
UNCERTAIN_BETWEEN = ("versus", "vs")

# The past of the patient, not this image.
HISTORICAL_BEFORE = (
    "(history of|h/o|hx of|past history of|known history of|prior history of)",
    "(status post|s/p)",
    "(previous|prior|previously|earlier)",
    "(previous|prior|earlier|old|outside) (exam|examination|study|radiograph|film|ct|imaging|scan) "
    "(which|that|, which) (show|demonstrate|showed|demonstrated|revealed|had shown|had demonstrated)",
    "(previously|prior) (seen|noted|described|identified|demonstrated|reported|visualized|"
    "questioned|mentioned)",
)
# What makes a finding of the past one of the present.
PRESENT_AFTER = (
    "(unchanged|stable|persists|persist|persistent|persisting|remains|remain|again|residual|still|"
    "redemonstrated)",
    "(improved|improving|decreased|decreasing|increased|increasing|smaller|larger|worse|worsened|worsening)",
    "(enlarged|progressed|similar|resolving|clearing|diminished|reduced|partially|grown|not changed)",
    "(placement|placed|insertion|inserted|implantation|in place|in situ)",
)

# Phrases that hold a cue and are none.
NO_CUE = (
    "no (significant|definite|appreciable|interval|substantial|marked|major|obvious|acute|evidence of|"
    "relevant|further|overall|apparent|gross|notable|clear|real|) "
    "(interval|significant|overall|) (change|changes|increase|decrease|improvement|worsening|progression|"
    "enlargement) (in|of|from|since|)",
    "(not|n't) (significantly|appreciably|substantially|markedly|) (changed|increased|decreased|"
    "improved|worsened|altered)",
    "without (significant|appreciable|interval|definite|substantial|further|) (interval|) (change|changes|"
    "progression|improvement) (in|of|from|since|)",
    "no (doubt|comparison|comparisons|prior|priors|previous|old|earlier)",
    "no (comparison|prior|previous|old) (exam|examination|study|studies|film|films|radiograph|image)",
    "(not|never) (only|limited to|just|necessarily|without)",
    "not (entirely|completely|fully|totally|) (free|clear) (of|from)",
    f"not ({_ADVERB}) ({_SEEN}) on (the|) (prior|previous|earlier|old|comparison|preceding|last|most recent)",
    f", (but|although|though|) not ({_ADVERB}) ({_SEEN}) on (the|) (lateral|frontal|ap|pa|other|second)",
    f"not (previously|formerly) ({_SEEN})",
    "most suggestive of",
    "(status post|s/p) (interval|recent|) (placement|insertion|implantation) of",
    "(not|n't) (well|fully|completely|entirely|included|optimally|adequately) "
    "(seen|visualized|evaluated|assessed|imaged|included|defined|demonstrated|)",
    "(prior|previous|earlier|comparison|recent) (exam|examination|study|radiograph|film|chest|image|"
    "ct|imaging|report|x ray|one|scan)",
    "(compared|comparison|compare) (to|with) (the|a|) (prior|previous|earlier)",
    "(since|from) (the|) (prior|previous|earlier)",
    "(partial|partially|incomplete|incompletely|near|nearly|almost|not|without|some|slight|mild|"
    "continued|gradual|progressive) (interval|complete|completely|) "
    "(resolution|resolved|clearing|cleared|removal) (of|)",
    "(as|if) (clinically|) (indicated|warranted|needed)",
    "(suggest|consider|recommend) (clinical|follow|followup|further|short|repeat|ct|chest|dedicated|"
    "correlation)",
    "(post|status post) (surgical|operative|sternotomy|thoracotomy|median|cabg|coronary|op|"
    "procedural|inflammatory|traumatic|obstructive|biopsy)",
    "may be (due|secondary|related|accentuated|exaggerated|attributed) (to|by)",
    "history of (present|) illness",
    "if (clinical|symptom|there is no|not)",
)

# Words at which every scope ends.
STOPS = (
    "but",
    "however",
    "although",
    "though",
    "except",
    "aside from",
    "apart from",
    "other than",
    "yet",
    "whereas",
    "while",
    "despite",
    "besides",
    "nevertheless",
    "still",
    "otherwise",
    "which",
    "who",
    "because",
    "secondary to",
    "in addition",
    "in the setting of",
)

KINDS = {
    "negative_before": NEGATIVE_BEFORE,
    "negative_after": NEGATIVE_AFTER,
    "resolved_before": RESOLVED_BEFORE,
    "resolved_after": RESOLVED_AFTER,
    "uncertain_before": UNCERTAIN_BEFORE,
    "uncertain_after": UNCERTAIN_AFTER,
    "uncertain_between": UNCERTAIN_BETWEEN,
    "historical_before": HISTORICAL_BEFORE,
    "present_after": PRESENT_AFTER,
    "no_cue": NO_CUE,
    "stop": STOPS,
}
