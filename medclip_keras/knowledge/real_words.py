"""Words that are right as they stand, and near a word of the dictionaries: they are no misspellings.

`knowledge.linking` looks up what neither the concept tables nor the cues nor this list hold. Own list, of
English and of reports; a word is compared after `knowledge.aliases.normalise`, so that one form is enough.
"""

import functools

from medclip_keras.knowledge.aliases import normalise

# Before a known word these make another one, which is real, and often the opposite: "uncalcified".
PREFIXES = (
    *("a", "ab", "an", "anti", "auto", "bi", "co", "contra", "de", "dis", "endo", "epi", "extra", "hemi"),
    *("hyper", "hypo", "im", "in", "infra", "inter", "intra", "ir", "macro", "mega", "meso", "micro", "mid"),
    *("mini", "mono", "multi", "neo", "non", "out", "over", "pan", "para", "per", "peri", "poly", "post"),
    *("pre", "pro", "pseudo", "re", "retro", "semi", "sub", "super", "supra", "sur", "trans", "tri", "ultra"),
    *("un", "under", "uni"),
)

_IN_REPORTS = """
abdomen abdominal aberrant aberrantly abnormal abnormality above abrupt abscess absorbed absorption
accentuate accentuation accessory accordingly accumulate accumulated activation active acutely additional
adequate adequately adherent adhesion adjacent adrenal advanced advancement affect affected aged agenesis
airway alignment allow allowing alter alteration altered although ancillary aneurysmal angle angled
angulated angulation ankle anomalous anomaly another anterior anteriorly anterolateral antral antrum aorta
aortogram apical apically apparent apparently appeal appear appearance approach approached approaching
appropriate appropriately approximate approximately approximates arch area arise arising arterial
arteriogram artery artifact artifactual ascending aside aspect aspiration assess assessed assessment assist
associate associated associates asthma asymmetric asymmetrical asymmetry attention atypical atypically
augmentation auscultation author average avulsed avulsion axilla axillary axis azygos background backward
bacterial balloon bared barium barrel basal based basic basically before begin beginning behind below
beneath benign beside besides better between biased biliary billing biopsied biopsy birth bladder bleed
bleeding blood bloody body border bordering borderline bother bound boundary bounded bowed bowing brain
branch branching breath breathing bright brighter bring bringing broke brought bruise bullet bundle burden
burnt bursa burst bypass caliber called calve cannot capacity capsule cardia cardiac carina carinal carotid
cater cause caused causing caution celiac center centered centimeter central centrally cervical
cervicothoracic chair change charge charged check chemotherapy chick child children chronic chronically
circle circular circumferential clarification clarify class clean cleaned clearer clearly clinic clinical
clinically clip close closed closely closer closure clothing cluster clustered coarctation coarse coarsely
coarsening coast coil collar collateral collecting collection collective collector colonic color column
combination combined common commonly communicate communicated communication companion comparable compare
compared comparison compatible compensated compensation complaint complete completed completely complex
complicated complication component compressed compressive compressor comprise comprised concave conception
concern concluding conclusion condition confident configuration confined confirm confirmed confluence
confluent conform congenital congestion congestive connect connected connection consecutive consequence
conservation conservative conserve consist consistency consistent consistently consisting constant
constellation construction consult consumption contact contain contained content contention contested
contiguous continue continued contour contraction contralateral contrary contrast contribute contributing
control contusion convection convention conventional conversation convert converted converting convex
convexity convincing coronal coronary correct corrected correction correlate correlated correlation
correspond corresponded corresponding cortical costal costochondral costovertebral cough couldn count course
coursing cover covered cranial created crest critical critically cross crossing crowded crowding crown
crural cupola curvature curve curved cutaneous cyst cystic darker dated dating daughter dealing debris
deceased decide decrease decreased decreasing dedicated deep deeper defect defected defending defibrillation
define defined definite definitely definition definitive definitively deflection deformed deformity
degenerated degeneration degenerative degree delay delayed delineate delineation demineralization
demineralized demolition demonstrable demonstrate demonstrated demonstration demonstrator dens dense densely
denser densest dental depend dependent dependently depending depict deployed deposit deposition depress
depressed depression depth derivation derive descend descended descending describe described description
desired despite destructive detail detailed detained detect detectable detection detention deteriorated
deterioration determine determined develop developed developer developing development deviate deviated
deviation device dextrocardia dextroscoliosis diabetes diagnose diagnosed diagnosis diagnostic dialysis
diameter diaphragm diaphragmatic differ difference different differential differentiate differentiation
difficult difficulty diffuse diffusely digit digital dipping direct directed direction directly disability
disappear disappearance disc discectomy discoid discrepancy discrete discuss discussed disease disk
dislocated dislocation dislodged disorder displaced displacement displaces displayed displays disrupted
disruption dissection disseminated distal distally distance distended distending distension distinct
distinction distinctly distinguish distinguished distort distorted distortion distribute distributed
distributing distributor divided division doctor document documented dorsal double doubled downward drafting
drainage draining drawn dressing ductus duodenal duplicate dwelling early easily eccentric edentulous edge
effaced effacement effort eight eighty either elastic elbow elderly electric electrical electrically
electrode electron electronic elevate elevated elevation elongated elongation elsewhere embolic embolism
embolization emergency emergent emptying enable encase encased encounter endobronchial endocarditis
endoscopy endotracheal enforcement engagement engorged engorgement enlarge enlarging enough ensure enteral
entire entirely entirety entity entry epigastric epigastrium episode equal equally equipment equivocal
eroded erosion erosive eruption esophageal esophagogram esophagram esophagus essential essentially estimate
estimated evacuate evacuation evaluate evaluated evaluating evaluation even eventration evidenced evolution
evolve evolving exaggerated examine examined exceed except excerpt excess excessive excessively excision
exclude excluded excluding exclusion excreted exercise exertion exhalation exist existing expand expanded
expected expiration expiratory explain explained explanation explantation exploitation explore exposed
exposure expression expressive extend extended extending extension extensive extensively extent exterior
external externally extinction extracardiac extraction extreme extremely extrinsic extubated extubation
facet facial facing factor fail failed faint faintly fall fallen falling falter fashion father fatty feature
femoral femur fetal fever fibrocystic fibronodular field fifth fifty fight figure filed filled filling fills
film final finding fine finger finish first fissural fissure fixation fixed flail flame flank flattened
flattening flaw flexion flexure flight flipping float flood floor flow fluoroscopic fluoroscopy flush
fluttering focal focus focused fold folder followed following force foreign form formal formally formation
formed former formulation forward founded fourth fragment fragmentation fragmented frame free freely
frequency frequent frequently fresh front frontal full fuller fully function functional functioning fundal
fundus fungal fungus fused fusion future gallbladder gallstone ganglion gastric general generalized
generally generate generation gently getting giant given gland glenohumeral glenoid globular grade graded
gradual gradually graduation grand granular granulation granuloma granulomatous gravel great greater
greatest gross grossly ground grounded group grown growth guided gunshot hair hand handle hardly haze head
headed heading healed healer healing health healthy heard hearing heated heating heaved heavily heavy hedge
height hematoma hemivertebra hemoptysis hence hepatic hernial herniorrhaphy heterogeneous highest highly
hilar hilum hinder history hoarse hold homogeneous horizontal horizontally hospital hour however huge human
humeral humor hydration hyperemia hyperinflation hyperlucent hypertension hypertensive hypertrophic
hypertrophy hypoventilation hypoxia hypoxic idea ideal identity idiopathic ileus iliac image imaged imaging
immediate immediately immune impaired impingement implant implanted implication imply importance important
impressed impression impressive improper improve improved improvement improving inability inadequate
inadvertent incidental incidentally incision include includes including incompletely increase increasing
increasingly indent indentation independent indeterminant indicate indication indicative indistinct
individual induce induced inducing induct inductive induration infant infarct infarction infected inferior
inferiorly inferolateral inflammation inflammatory inflated influenza inform informally information infusion
inhalation inhaled initial initially injected injection injury inlet innominate innumerable inpatient input
insert inserted insertion inside insignificant insistent inspect inspection inspiration inspiratory inspired
instability instant instead instinct instruction instrument instrumentation insufficiency insufficient
insufflation insulation intact intend intended intense intensity intensive intention interaction interest
interface interfere interior internal internally interpret interpretation interrupted interruption
interspace interstitium interval intervene intervening intervention interventional intestinal intestine
intramedullary intrinsic introduce introduced intubated intubation intuition invade invaded invasion
invasive inverted involve involved involvement involving ipsilateral irregular irregularity irregularly
irritation ischemia ischemic isolated issue joint jugular junction juncture juxta keloid kidney kink kinked
knee known kyphosis kyphotic labeled labor laceration laminar laminectomy large largely larger largest
larynx latent later lateral laterally latest lavage layer leading leak least leave ledge left length lense
lesser letter leukemia level levocardia levoscoliosis ligament ligation light lightly likelihood likewise
limit limitation limited limiting linear liner lingual lining little lived lively liver lives living
lobulated local localize localized locate located location locking locular locus logical long longer
longitudinal loop loose loosening lordosis lordotic loss lossed lower lowest lucency lucent lumbar lumen
luminal lumpectomy lupus lying lymph lymphangitic lymphatic lymphocyte lymphoma magnification magnified
mainstem maintain maintained major majority making malalignment male malformation malposition malpositioned
mandible mandibular manifest manifestation manner manubrium mapping margin marginal marginally margination
mark marked markedly marker marking marrow masked mastectomy matched material maternal matter mature maximal
maximum mean measurable measure measured measurement measuring mechanic mechanical mechanically media medial
medially median mediastinoscopy medication medicine medina medium member membrane mental mention mentioned
mentoring mesenteric metabolic metal metallic method meticulous middle midline mild milder mildly military
milling mimic minimal minimally minimum minor minute miss missed mistaken mixed mobile mobility moderate
moderately modest modification modified modulation module molded moment monitor monitored month more morning
mother motion mottled mount mouth move moved movement moving multifocal multiple multiplied muscle muscled
muscular musculature musculoskeletal mutual myocardial myocardium nasal natal natural nature navigation near
nearby nearing nearly neatly necessary neck necrosis necrotic needed needing negatively neighboring neither
nerve neural never newer newly nipple nobel noise noncontrast norma normal normality normalized normally
north nosed notch notching noted nothing notice noting novel nowhere nuclear number numerous nurse nursing
obese obesity object oblique obliquity obliterate obliterated obliteration oblong obscure obscured obscures
obscuring observation observe observed observer observing obstinate obstruct obstructed obstructing
obstruction obstructive obtain obtained obvious obviously occasion occasional occlude occluded occlusion
occult occupied occupy occur occurred older omental onset opaque open opened opening operation operational
operative operator opposed opposite opposition optimal optimally option order ordered organ organism
organized orientation oriented origin original originally originate orthopedic osseous ossicle ossification
ossified osteoarthritis osteolytic osteopenia osteopenic osteophyte osteoporosis osteoporotic osteotomy
other otherwise outcome outer outlet outline outlined outpatient output outside outward oval overall
overexposed overexposure overinflation overlap overlapped overlapping overlay overlie overload overly
overlying overseen overview oxygen oxygenation paces pack packed packing paddle paged pain painful paint
pair paired palate palliative pancreas pancreatic pancreatitis paper parallel paralysis paralyzed parenchyma
parenchymal parietal parker part partial partially particular particularly particulate parting partly
passage passing past patch patchy patent paternal pathologic pathological pathology pathway patient pattern
pause pausing peace peak pectoral pectus pediatric pedicle pelvic pelvis penetrate penetrated penetrating
penetration people peptic perceived percent percentage perceptible percutaneous perfect perforated
perforation perform performed perfusion period peripheral peripherally periphery peristalsis peritoneal
peritoneum permanent permit permitted permitting persist persisted persistence persistent persistently
perspective pertinent phase physical physician physiologic picture piece pin place placed placement placing
plague plain plan plane planned plaster plastic plasty plate platelet platform pleat plenty plexus plication
plural pneumatocele pneumatosis pneumobilia pneumoconiosis pneumocystis pneumomediastinum pneumonectomy
pneumopericardium pneumoperitoneum pocket point pointed polyp poor poorly popcorn popularity population
porta portable portal portion position positional positioned positioning positive possess possibility post
posterior posteriorly posterolateral posteromedial postoperative postural posture potential pouch pound
pounded power practice praised precise precisely preclude prediction predispose predisposing predominance
predominant predominantly predominate prefer pregnancy pregnant preliminary premature preparation prescribed
present presentation presently preserve preserved pressure presumably presume presumed prevent previous
previously primarily primary principal prior priory private probability probable probably probe problem
procedure proceed proceeding process processed processing produce produced produces product production
productive profession profile profound program progress progressed progressing progression progressive
progressively project projected projecting projection prolapse prolonged prominence prominent prominently
pronounced proper properly proportion prostheses prosthesis prosthetic protocol protrude protruding
protrusion prove proved proven provide provided provider proximal proximally proximity pulled pulsation
pulse pulsed pump puncture purpose purulent push pylorus quadrant quadrate qualified quality quantify
quantity question questionable questionably quick quickly quiet racing radial radiation radical radicular
radio radiodense radiograph radiographer radiographic radiographically radiography radiologic radiological
radiologist radiology radiolucent radiopacity radiopaque radiotherapy railing raise raised raising ramus
random range ranged ranger ranges ranging rapid rapidly rare rarefaction rarely rate rather ratio ration
reach reached reaching reaction reactive read readily reading ready realigned reality really rear reason
reasonable reasonably reassess receive received recent recently recess recheck recognised recognize
recognized recollection recommend recommendation recommended reconstruct reconstruction record recorded
recover recovery rectum recur recurrence recurrent redemonstrated redistribution reduce reduced reducing
reduction redundant reelection refer reference referred referring refined reflect reflected reflection
reflux refractory regain regained regard regarding regenerate region regional regression regular regulation
regurgitation rejection relate related relation relationship relative relatively relax relaxation relaxed
release relegation relevant reliable reliably relief remain remainder remained remaining remarkable remnant
remote remotely removal remove removed renal repair repaired repeat repeated repeating replace replaced
replacement report reported reporting reposition repositioned represent representation representative
represented representing repression request requested require required requirement resect resected resection
reserve reserved residua residual residue resist resistance resistant resisting resolution resolve resolving
resort respect respectively respiration respiratory respond response responsible rest resting restoration
restrained restrict restricted restriction result resulting resuscitation retain retained reticular
reticulation retract retracted retraction retrieval retrieve retrosternally return reveal reversal reverse
reversed review reviewed reviewing revision revolving rheumatic rheumatoid right rightward rigid ring rising
risk roentgen root rotary rotate rotated rotation rotational rotator rough roughly round rounded rounding
route routine routinely row rudimentary rule running rupture ruptured sabine sacral sacrum safe sagittal
salient saline same sample sarcoid sarcoidosis sarcoma satisfactory saturation scale scalloping scan
scanning scant scanty scaphoid scapula scapular scatter scattered scattering schedule scheduled scheme
sclerosed sclerosing sclerosis sclerotic scoliosis scoliotic scout screen screening screw sealed season
seated seating second secondary secretion section sectional secure seduction seen segment segmentation
selected selection selective semi sense sensitive sensitivity sensor separate separated separately
separation sepsis septal septation septic septum sequel sequela sequelae sequence sequential sequestration
serial serially series serious seroma serous serum service session setting settle settling seven seventy
several severe severely severity shaded shadow shadowed shadowy shaft shallow shape shaped share shared
sharing sharp sharply shattered shaved sheath shift shifted shifting shine short shorten shortened
shortening shortly shortness should shoulder shouldered shoulders shouldn shrapnel shrunken sibling side
sided siding sight sign signal significance significant significantly signify silicon similar similarity
similarly simple simply simulate simulated simulating single singled singular sinus sinuses sipping site
sited sitting situated situation situs sixth sixty skeletal skeleton skin skull sleep slicing slight
slightly slip slipping slope sloping slow slower slowing slowly smaller smallest smoke smoker smoking smooth
smoothly snapshot sniff solely solid solitary solution some somewhat sound sounded source south space spaced
spacing spare spared sparing sparse spasm special specific specifically specification specified specimen
speculation spherical spiculated spiculation spicule spinal spine spinous spiral spire spite spleen
splenectomy splenic splenomegaly splint split spondylitis spondylosis spondylotic spontaneous sporadic spot
sprain spread spur spurious spurring sputum squamous square stability stabilization stabilized stable stack
stage staging stain stand standard standing standpoint staple starring start started starting state stated
statement static station stationary status stays steadily steady stellate stenosis stenotic stent step
sternal sternoclavicular sternotomy sternum steroid stiff still stimulate stimulated stimulation stimulator
stint stippled stitch stomach stone stool straight straightened straightening strain strand stranding
strandy strap strapped streak streaking streaks streaky strength stress stretch striated strictly stricture
striking string strip stripe stripping stroke strong strongly structural structure structured study stump
subacute subclavian subcutaneous subdiaphragmatic subject subjective sublingual subluxation submit submitted
subphrenic subpleural subsegment subsegmental subsequent subsequently subset substance substantial
substantially substantive substernal subtle subtly subtracted subtraction subxiphoid successful successive
suction sudden suffer suffering sufficient sufficiently suggest suggested suggestion suitable sulcal summary
summation superficial superficially superimposed superimposition superior superiorly supervision supervisor
supine supply support supported supporting supportive suppress suppression supraclavicular suprahilar
supraspinatus surface surfaced surgeon surgery surgical surgically surround surrounded surrounding survey
survival suspect suspicion suspiciously sustained suture sutured swallow swallowed swallowing swelling
swollen symmetric symmetrical symmetrically symmetry symphysis symptom symptomatic syndesmophyte syndicated
syndrome synovial syringe system systemic systolic table tachycardia tachypnea talking tangential tangle
taper tapered tapering tapped tapping target teaching team tear technical technically technician technique
technologist technology telemetry temporal temporary tendinitis tendon tension tentative term terminal
terminate terminating termination terrace tertiary test testing texture that theirs theme then therapeutic
therapy there thick thickness thin think thinned thinner thinning third thoracentesis thoracic thoracolumbar
thoracoplasty thoracoscopic thoracoscopy thoracotomy thorax thorough those though three throat thrombosed
thrombosis thrombus throughout thymic thymus thyroid thyroidectomy tibia tight time tiny tipping tissue
today together token tolerated tomography topic torn torsion tortuosity tortuous total totally tough toward
towards trace traced trachea tracheal tracheobronchial tracheomalacia track tract traction train trained
traits transbronchial transcutaneous transfer transfusion transient transition transitional translucent
transmitted transparent transplant transplantation transplanted transportation transposition transverse
transversely trapped trapping trauma traumatic traverse traversing treated treatment tree trend triage trial
triangle triangular tripped trough truck true truly truncated truncus trunk tubercle tubercular tuberculosis
tuberculous tubular tumoral tumorous tuning tunnel turning twelve twice twist twisted typical typically
ulcer ulcerated ulceration umbilical uncertain uncertainty under undergo undergone underlying uneven
unfolded unfolding uniform uniformly unilateral union unique united unless until unusual upper uppermost
upright upside upward urgent urinary usable usual usually uterine vagal vagina vague vaguely valid valuable
valuation value valve valvular valvuloplasty variable variance variant variation varicella varicose variety
various varix vary varying vascular vascularity vascularization vasculature vein venogram venous ventilated
ventilation ventilator ventral ventricle ventricular ventriculoperitoneal venture venus vertebra vertebral
vertebroplasty vertical vertically vertigo very vessel viable vicinity video view viewed viewing viral
virtually virus visceral viscus visible visibly vision visit visual visually vital vocal volume voluntary
vomiting vortex walking wall walled warning warrant warranted wash waterfall watery wave wavy weak weakness
wedge wedged week weight weighted wheel wheeze wheezing where whereas which whilst whole wholly whose widely
widen wider widespread width wing wired wiring wispy with withdraw withdrawal withdrawing withdrawn within
without worker workup world worse worsen worsening worst would wouldn wound wounded woven wrap wrapped wrist
write written wrong xiphoid yearly years yesterday young younger zonal zone zoster
"""
_ELSEWHERE = """
abroad absolute addiction agitation aided argue attraction attribute aviation awhile backing baked bare
barge barking basil battle beast bedside bell bend bending bind binding bland bleak blond bloom blowing
board bowel braid brave bread breed broker brood broom brown bully camp canal cancel carry cease chase cheek
chief chuck citation clap clapping coach colony combat comfort command comment commit compassion compete
compile compose concept concert concession conduct conducted confession confuse consent consolation
constructive contend contest convent conviction cooperation cotton craft crash crawl crime crowd curtain
cushion dance decent decoration defend delegation deliver demand depart deport descent destruct digger
dinner distress diver draft dream drink drive elimination emotion engage enter entertain erect eternal ether
evade exact exception exchange exploit extinct faith farther favor feast feel fellow fiddle fidelity fission
flag flash flower flown folly fraction freak freight friction fright frown funding gather glance gloss glow
gold grain grant grass grave greet groan groin growl guess hail harsh hate hearth heat hiss hollow horse
hose hound imagine impress infest inflict inject insult invent invitation jacket killing kissing lacking
lend lesson lever liable libel license lick linen linger liter literal livery loan lock longing lotion lover
lumber lyric maker manage mansion maple market marriage martial mask massage massive master mayor medal melt
mentor merge mess message messing mighty mission mistress modular money moral mouse multiply mystic nation
navigate needle netting night nodding note notion novelty offer office opera oppression otter packer palace
panel parade parcel park patio patrol patron pedal penal pension pepper persuade petal phrase pioneer pitch
plaid planet plant plantation play pleasure pledge poetry popular postal potion prairie praise prayer
precious prelate prescribe priest prince prison prize procession promise prowess purse quarter racer raid
rail rain rally rental repent reptile rescue reside retire retort revolution reward riddle ripple rival
river rope rumor sail sanitation scent scratch search seize shark shirt shoe shoot shore shout shove siege
silence silver simulator skill slain slate slice slogan smell snort social soldier solemn sorry spade
spectacle spell spend spice spike spill spirit spoil sport stale stall star statue steam steel steer stick
stolen store storm story strange stream street strike student stunt style submission success suffix sugar
supper surf swift swing syndicate tackle tailor tale tape taste taught teach tend tense tent thank theater
theory thief throne thumb ticket tiger timber title tobacco tone tower trade trailer traitor tramp transit
treason tribe trick troop trust truth tutor twenty twins vector vehicle vend verb verse victor villa vintage
virtue visa vote vowel voyage wagon waist wander waste water weather wedding wheat whisper widow wild
winding window winner winter wisdom wonder wooden worship worth wrapping yield
"""


@functools.cache
def real_words() -> frozenset[str]:
    """The words in their matched form.

    >>> "infusion" in real_words(), "efusion" in real_words()
    (True, False)
    """
    return frozenset(normalise(word) for word in (_IN_REPORTS + _ELSEWHERE).split())
